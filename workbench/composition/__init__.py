"""What later heads read of earlier ones, and two heads taken as one."""
