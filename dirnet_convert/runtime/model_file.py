"""Reading an ONNX file's graph, with a damaged file told in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dirnet_convert.errors import DirnetError

if TYPE_CHECKING:
    import onnx


def read_model(path: Path | str) -> onnx.ModelProto:
    """Return what ``path`` holds; tensors that lie in files beside it are left there.

    Raises:
        DirnetError: the file is damaged.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        # By itself, onnx takes a file for text or JSON where its name ends so.
        return onnx.load(str(path), format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise DirnetError(f"{path} is damaged or no ONNX file; make it anew with 'dirnet export'.") from error
