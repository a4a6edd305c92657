"""What happened, told to others as JSON objects."""
