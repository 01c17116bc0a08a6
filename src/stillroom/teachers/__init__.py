"""Who is asked. A teacher's knobs build something that answers; none of them trains itself."""
