"""Which URLs a dump may be read from and written to.

fsspec knows many protocols, and some of them do more than fetch bytes: `reference::` fills in templates, and an
archive protocol opens whatever lies inside. A URL may come from a manifest of somebody else, so only protocols that
fetch bytes are allowed.
"""

from __future__ import annotations

from toppo.dump.errors import DumpError

PROTOCOLS = (
    "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "hf",
    "http", "https", "sftp", "ssh", "hdfs", "webhdfs", "memory",
)  # fmt: skip
"""What may stand before "://"."""

WRAPPERS = ("simplecache",)
"""What may stand before a protocol, with "::" after it."""


def check_url(url: str) -> None:
    """Raise DumpError unless every protocol in a URL is one of `PROTOCOLS`, after any of `WRAPPERS`."""
    *wrappers, last = url.split("::")
    protocol = last.partition("://")[0] if "://" in last else last
    for name, allowed in [*((wrapper, WRAPPERS) for wrapper in wrappers), (protocol, PROTOCOLS)]:
        if name not in allowed:
            raise DumpError(
                f"{url}: the protocol {name!r} is not allowed; give a URL of {', '.join(PROTOCOLS)}",
                path=url,
                allowed=PROTOCOLS,
            )
