"""What every request passes: sizes, hosts, keys, lists, errors."""
