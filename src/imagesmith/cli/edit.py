"""`imagesmith edit`: change a region of a photograph by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from imagesmith import api
from imagesmith.cli.options import request_from, with_record
from imagesmith.cli.output import percent, print_json, say
from imagesmith.cli.see import quiet_of
from imagesmith.core.requests import EditRequest
from imagesmith.image.metadata import save_image


def register(app: typer.Typer) -> None:
    """Add the command of this family."""
    app.command()(edit)


@with_record(EditRequest)
def edit(
    ctx: typer.Context,
    photo: Annotated[str, typer.Argument(metavar="PHOTO", help="The photograph.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Picture to write; unset is PHOTO-edited.png beside you.")
    ] = None,
    mask_out: Annotated[
        Path | None, typer.Option("--mask-out", help="Also write the region's mask as a grey PNG.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record of what was done as JSON.")] = False,
    **options: Any,
) -> None:
    """Change a region by its name, as in: imagesmith edit me.jpg --region dress --recolor crimson"""
    edited = api.run_edit(photo, request_from(EditRequest, options))
    target = out or Path(f"{Path(photo).stem}-edited.png")
    edited.save(target)
    if mask_out is not None:
        grey = np.rint(edited.mask * 255).astype(np.uint8)
        save_image(mask_out, np.repeat(grey[..., None], 3, axis=2))
    if json:
        print_json(edited.record)
    else:
        region = edited.record["region"]
        say(
            f"{region['text']}: {percent(region['share'])} of the photograph changed; {target}",
            quiet=quiet_of(ctx),
        )
