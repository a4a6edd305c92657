"""How the lifter is made (see ../../lifter.md). Nothing here runs in the app."""
