"""No raw exception on a page: an expected one shows its sentence, any other a number to find it by in the log."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from dashboard.components.common.text import plain
from steel_core.errors import SteelError

_log = logging.getLogger("steel_lens")


@contextmanager
def guarded() -> Iterator[None]:
    """Show what is raised within as a sentence. Works as a decorator, too; a fragment needs its own."""
    try:
        yield
    except SteelError as error:
        st.error(plain(str(error)), icon=":material/error:")
    except Exception:  # noqa: BLE001 - the boundary to the person at the screen; the trace goes to the log
        number = secrets.token_hex(4)
        _log.exception("unexpected error %s", number)
        st.error(
            f"Something went wrong here. It is noted in the log under **{number}**. "
            "Reload the page; if it comes back, pass this number on to whoever runs the server.",
            icon=":material/error:",
        )
