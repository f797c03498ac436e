"""Functions that read, run and train the networks, images and labels of users."""
