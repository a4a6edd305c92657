"""What comes of events, such as a throw's release: pages for people."""
