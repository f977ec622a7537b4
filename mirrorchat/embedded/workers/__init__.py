"""Native libraries in warm processes of their own: both sides of the pipe, and what runs there."""
