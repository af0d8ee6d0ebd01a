"""Models with several causes planted at once."""
def combinations(count, seed):
    return []
