"""Does a transformer behave like an ensemble of short paths?"""
