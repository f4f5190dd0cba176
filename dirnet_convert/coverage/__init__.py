"""Which networks the whole way works for: every one of a list is converted, trained a step, exported and
compared."""
