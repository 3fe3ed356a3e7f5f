"""Files that devices made: their way here, where they are kept, and all that was ever done to them."""
