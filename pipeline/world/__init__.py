"""What is known of the world around the people: how the camera moves in it."""
