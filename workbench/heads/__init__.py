"""What heads do, what their weights say, and both on one card."""
