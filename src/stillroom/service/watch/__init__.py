"""How the service is: logs, figures, signs of life."""
