"""One request to a web server, checked before a byte is written: https, the right part, no page."""

import email.message
import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from attnprobe.errors import CheckpointError

PATIENCE = 30.0  # seconds without a byte after which a connection counts as broken
_LOCAL = ("127.0.0.1", "localhost", "::1")
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """A server's answer to a request.

    Attributes:
        stream: To read from.
        start: Bytes of the file that come before what is in the stream.
        total: Bytes of the whole file, or 0 where the server does not say.
        version: What tells this version of the file from another: its ETag or date.
    """

    stream: Any
    start: int
    total: int
    version: str


class BrokenTransferError(Exception):
    """A connection that failed on the way; to try again may help."""


def allowed(address: str) -> bool:
    """Whether an address may be fetched: https, or this very machine.

    >>> allowed("https://a.org/x"), allowed("http://a.org/x"), allowed("http://127.0.0.1:80/x")
    (True, False, True)
    """
    parts = urllib.parse.urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)


def ask(address: str, start: int = 0, version: str = "") -> Answer:
    """Ask for a file from a byte onwards; an answer that is none of it raises.

    Args:
        address: Where it is.
        start: Bytes that are there already; the answer may begin before them.
        version: The version that those bytes are of.

    Raises:
        CheckpointError: It is not there, or is no file.
        BrokenTransferError: The connection failed.
    """
    headers = {"User-Agent": "attnprobe", "Accept-Encoding": "identity"}
    if start and version:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    opener = urllib.request.build_opener(_OnlyHttps())
    try:
        reply = opener.open(urllib.request.Request(address, headers=headers), timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and start:  # what is there is longer than the file
                return ask(address)
            raise _refusal(address, error) from error
    except (OSError, http.client.HTTPException) as error:
        raise BrokenTransferError(_told(error)) from error
    return _answer(address, reply, start)


def read(answer: Answer, count: int) -> bytes:
    """Return the next bytes, at most so many; none at the end.

    Raises:
        BrokenTransferError: The connection failed.
    """
    try:
        return answer.stream.read(count)
    except (OSError, http.client.HTTPException) as error:
        raise BrokenTransferError(_told(error)) from error


def _answer(address: str, reply: Any, start: int) -> Answer:
    headers = reply.headers
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        reply.close()
        raise page(address)
    version = _version(headers)
    if reply.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if span is None or int(span[1]) != start:
            reply.close()
            raise BrokenTransferError("the server sent another part of the file than was asked for")
        return Answer(reply, start, 0 if span[2] == "*" else int(span[2]), version)
    length = headers.get("Content-Length", "")
    return Answer(reply, 0, int(length) if length.isdigit() else 0, version)


def page(address: str) -> CheckpointError:
    """Return the error for an answer that is a web page."""
    return CheckpointError(
        f"{address} answers with a web page, not a file",
        "open it in a browser, download the file by hand and give its path",
    )


def is_page(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a web page.

    >>> is_page(b"<!DOCTYPE html><html>"), is_page(b"PK")
    (True, False)
    """
    return bool(_PAGE.match(head))


def _version(headers: email.message.Message) -> str:
    """Return a strong ETag or the date; a weak tag says nothing of single bytes."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


class _OnlyHttps(urllib.request.BaseHandler):
    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Let no request out, redirected ones included, that anybody on the way can change."""
        if not allowed(request.full_url):
            raise CheckpointError(
                f"{request.full_url}, to which the server leads, is not https",
                "download the file by hand and give its path",
            )
        return request

    ftp_request = http_request


def _refusal(address: str, error: urllib.error.HTTPError) -> Exception:
    if error.code in (408, 429, 500, 502, 503, 504):
        return BrokenTransferError(f"the server answered {error.code} {error.reason}")
    return CheckpointError(
        f"{address} cannot be had: the server answered {error.code} {error.reason}",
        "its authors may have moved it: look at their page and give the path of what you get",
    )


def _told(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return (str(reason).strip() or type(error).__name__).splitlines()[0][:200]
