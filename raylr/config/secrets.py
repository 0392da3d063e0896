"""Keep the secret of a webhook, which is its URL, out of what is printed and stored."""

from urllib.parse import urlsplit

HIDDEN = "***"


def masked(url: str) -> str:
    """Return the URL without what is secret in it: its scheme and host alone.

    >>> masked("https://user:word@hooks.slack.com/services/T0/B0/XYZ?key=1")
    'https://hooks.slack.com/***'
    """
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError:
        return HIDDEN
    return f"{parts.scheme}://{host}/{HIDDEN}" if parts.scheme and host else HIDDEN


def is_masked(url: str) -> bool:
    """Return True for what `masked` gives."""
    return url.endswith(HIDDEN)


def without(text: str, secret: str | None) -> str:
    """Return the text with the URL masked wherever it stands."""
    return text.replace(secret, masked(secret)) if secret else text
