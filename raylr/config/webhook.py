"""The URL of a run's webhook, as given or from the file that holds it."""

from pathlib import Path

from raylr.config.run import AlertsConfig
from raylr.errors import ConfigError


def webhook(config: AlertsConfig) -> str | None:
    """Return the URL that alerts go to; None without one. Raises ConfigError for a file that holds none."""
    if config.url_file is None:
        return config.url
    try:
        url = Path(config.url_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(
            f"alerts.url_file={config.url_file} cannot be read ({cause}); give a file that holds the URL"
        ) from None
    try:
        return AlertsConfig(url=url).url
    except ValueError:
        raise ConfigError(
            f"alerts.url_file={config.url_file} holds no URL of a webhook; write one line with https://"
        ) from None
