"""Parts that come to the app from outside its tree, as a user's package would bring them."""
