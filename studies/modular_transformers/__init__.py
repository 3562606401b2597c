"""Does a price on wiring change which heads form, how they compose, and how well they can be read?"""
