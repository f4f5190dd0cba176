"""The method's arithmetic: IMB, the estimators of sign(), and the layers made of them."""

from __future__ import annotations
