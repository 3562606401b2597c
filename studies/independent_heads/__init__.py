"""What do attention heads become that are trained one after another, each on what the earlier ones left?"""
