"""Can a model's channels be added in the course of training, and do the old ones stay in use?"""
