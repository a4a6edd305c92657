"""Events as they happen: reports, pictures, pages and where they are sent."""
