"""Events in people's motion: what is looked for, when it happens, and what it measures."""
