"""Pictures that a task makes of its model at each test, as PNGs in the run's folder: pictures/POSITION-NAME.png."""

import io
import warnings
from collections.abc import Mapping

from PIL import Image
from torch import Tensor

from raylr.errors import ConfigError
from raylr.storage import PICTURES, Folder


def keep(folder: Folder, position: int, pictures: Mapping[str, Tensor]) -> None:
    """Write the pictures, uint8 [H, W, 3] or [H, W]. One that cannot be written is named in a warning: a run goes on."""
    for name, picture in pictures.items():
        path = f"{PICTURES}/{position:012d}-{name}.png"
        try:
            folder.write_bytes(path, png(name, picture))
        except OSError as error:
            warnings.warn(f"{path} was not written: {error}", stacklevel=2)


def png(name: str, picture: Tensor) -> bytes:
    """A picture as the bytes of a PNG. ConfigError for what is none."""
    array = picture.detach().cpu().numpy()
    is_picture = array.dtype == "uint8" and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3))
    if not is_picture or not name.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(
            f"the picture {name!r} of a task is {array.dtype} of shape {array.shape}; give uint8 [H, W, 3] or [H, W] under a "
            "name of letters and digits"
        )
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()
