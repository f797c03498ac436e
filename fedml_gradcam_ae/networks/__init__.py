"""Networks, images and labels as users bring them: reading, running and training them."""
