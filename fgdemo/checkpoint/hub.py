"""From what a person typed, a folder or a Hub id, to a local checkpoint directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HfUriError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from huggingface_hub.utils import HfUri, httpx, parse_hf_uri

from fgdemo.checkpoint.schema import FILES
from fgdemo.errors import UserError

_LOOKS_LOCAL = re.compile(r"[./~\\]|[A-Za-z]:[\\/]|.*[/\\]$")


def resolve(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """The local directory of a checkpoint, downloaded to the Hub's cache if it is not a folder here.

    An existing directory beats a Hub id of the same name; ``hf://USER/NAME`` forces the Hub, and
    ``USER/NAME@REVISION`` names a branch, tag or commit. Only the five files of a checkpoint are downloaded.
    Off line, a snapshot that is complete in the cache serves.

    Raises:
        UserError: nothing found there, no access, no network, or a repository that holds no checkpoint.
    """
    text = str(path_or_hub_id)
    if not text.strip():
        raise UserError("No checkpoint was named; give its folder, or hf://USER/NAME for the Hub.")
    forced = text.startswith(("hf://", "https://"))
    local = Path(text).expanduser()
    if not forced and local.is_dir():
        if revision is not None:
            raise UserError(f"{text} is a local folder, which has no revisions; leave out revision {revision}.")
        return local
    if not forced and (isinstance(path_or_hub_id, Path) or _is_local(text)):
        problem = "is a file, not a folder" if local.exists() else "does not exist"
        raise UserError(
            f"The checkpoint folder {text} {problem}; give an existing folder, or hf://USER/NAME for the Hub."
        )
    uri = _parse(text, forced)
    if revision is not None and uri.revision not in (None, revision):
        raise UserError(f"{text} names the revision {uri.revision}, but {revision} was asked for; give one of them.")
    return _download(uri.id, revision or uri.revision)


def _is_local(text: str) -> bool:
    """Whether a person meant a path: it looks like one, or its first folder or it as a file exists here."""
    first = Path(text).parts[:1]
    inside = "/" in text and bool(first) and Path(first[0]).is_dir()
    return bool(_LOOKS_LOCAL.match(text)) or text.count("/") != 1 or inside or Path(text).exists()


def _parse(text: str, forced: bool) -> HfUri:
    try:
        uri = parse_hf_uri(text if forced else f"hf://{text}")
    except HfUriError as error:
        raise UserError(
            f"{text} is not a model on the Hub; write hf://USER/NAME or hf://USER/NAME@REVISION."
        ) from error
    if uri.type != "model" or uri.path_in_repo or "/" not in uri.id:
        raise UserError(f"{text} is not a model on the Hub; write hf://USER/NAME or hf://USER/NAME@REVISION.")
    return uri


def _download(repo_id: str, revision: str | None) -> Path:
    at = f" at revision {revision}" if revision else ""
    try:
        directory = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(FILES)))
    except HFValidationError as error:
        _fail(f"{repo_id} is neither a folder here nor a possible id on the Hub", "check the spelling", error)
    except GatedRepoError as error:
        _fail(f"The model {repo_id} is gated", "accept its terms on its Hub page and run `hf auth login`", error)
    except RepositoryNotFoundError as error:
        _fail(
            f"There is no folder {repo_id} here and no model of that name on the Hub that you may read",
            "check the spelling, or run `hf auth login` if it is private",
            error,
        )
    except RevisionNotFoundError as error:
        _fail(f"The model {repo_id} has no revision {revision}", "give a branch, tag or commit that it has", error)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        _fail(
            f"There is no folder {repo_id} here, and the Hub cannot be reached for the model{at}, "
            "which is not complete in the cache either",
            "check the spelling, the network and HF_HUB_OFFLINE",
            error,
        )
    except HfHubHTTPError as error:
        _fail(f"The Hub refused {repo_id}{at} (HTTP {error.response.status_code})", "try again later", error)
    except (OSError, ValueError, httpx.HTTPError, XetDownloadError) as error:
        # A ValueError is an answer that is not the Hub's, such as the page of a captive portal.
        reason = getattr(error, "strerror", None) or type(error).__name__
        _fail(f"The model {repo_id} cannot be downloaded ({reason})", "check the disk and the network", error)
    missing = [name for name in FILES if not (directory / name).is_file()]
    if missing:
        raise UserError(
            f"The Hub's model {repo_id}{at} is not a complete checkpoint of fgdemo: it has no {', '.join(missing)}; "
            "give another id or revision."
        )
    return directory


def _fail(problem: str, remedy: str, error: Exception) -> NoReturn:
    raise UserError(f"{problem}; {remedy}.") from error
