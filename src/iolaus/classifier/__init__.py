"""The image classifier: data, models, training, and the run around them. The sweeper never imports it."""
