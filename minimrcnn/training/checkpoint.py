"""Everything a training needs to go on as if it had never stopped, in one file that appears whole or not at all.

Model, optimizer, the state of the model's random generator and the number of steps done. The place in the data set and
the learning rate follow from the number of steps, so neither is stored. Configuration and options are in it too: they
are compared when training goes on, because with others it would not be the same run. What a checkpoint of an older
version does not know has the default that the newer one gave it, which does what was done before. The words of the
command that began the run are in it, so that the one that goes on need not repeat them.

The names of the photos are compared as well: with one more or less, others are held back, and what the model is scored
on would be what it was trained on. What is annotated on them is not: to mend that and go on is meant to work.

When all steps are done, the optimizer is not needed any more and the model is in ``model.npz``: the checkpoint is
replaced by one without arrays, which still says what run it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minimrcnn.archive import read_archive, read_header, write_archive
from minimrcnn.device import to_device
from minimrcnn.errors import DataError
from minimrcnn.models.saved import photos_of, read_model
from minimrcnn.spelling import quote_arguments
from minimrcnn.weights import is_ours, load
from minimrcnn.weights.recognize import set_norm_eps

KIND = "minimrcnn checkpoint 1"
MODEL = "model.npz"  # beside the checkpoint, of a run that is done
HEADER_FIELDS = {"step": int, "generator": dict, "config": dict, "options": dict}
# What may differ between two parts of a run: the pause, the eps that a batch norm got with its first weights, and the
# order in which a GPU adds.
FREE_OPTIONS = ("checkpoint_seconds", "norm_eps", "roi_deterministic")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes
    ----------
    step : int
        Steps done.
    finished : bool
        These were all: there are no arrays, the model is in the file beside this one.
    model, optimizer : dict of str to ndarray
        As ``arrays()`` of either gave them.
    generator : dict
        ``model.generator.bit_generator.state``.
    config, options : dict
        The fields of the model's Config and of the TrainOptions.
    photos : dict of str to list of str, or None
        As `list_photos` gave them; None in the checkpoint of an older version.
    trained_on : tuple of str
        Fingerprints of photos, as the model has them.
    arguments : list of str
        Of the command that began the run; none if that was no command, or one of an older version.
    """

    step: int
    model: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    generator: dict
    config: dict
    options: dict
    finished: bool = False
    photos: dict | None = None
    trained_on: tuple[str, ...] = ()
    arguments: Sequence[str] = ()


def save_checkpoint(
    path, model, optimizer, options, step: int, finished: bool = False, photos=None, arguments: Sequence[str] = ()
) -> None:
    """Write a checkpoint after ``step`` steps, over an earlier one of that name; of a finished run, without arrays.

    ``photos`` are those of the run, as `list_photos` gives them, ``arguments`` those of the command that began it.
    """
    arrays = {}
    if not finished:
        arrays |= {f"model/{name}": array for name, array in model.arrays().items()}
        arrays |= {f"optimizer/{name}": array for name, array in optimizer.arrays().items()}
    header = {
        "kind": KIND,
        "step": step,
        "finished": finished,
        "generator": model.generator.bit_generator.state,
        "config": dataclasses.asdict(model.config),
        "options": dataclasses.asdict(options),
        "photos": photos,
        "trained_on": list(model.trained_on),
        "validated_on": list(model.validated_on),
        "arguments": list(arguments),
    }
    write_archive(path, {name: to_device(array, "cpu") for name, array in arrays.items()}, header)


def read_checkpoint(path, header_only: bool = False) -> Checkpoint:
    """Read a checkpoint; with ``header_only`` without its arrays, which are nearly all of it.

    Raises
    ------
    DataError
        The file is damaged, or an archive of another kind.
    """
    arrays, header = ({}, read_header(path)) if header_only else read_archive(path)
    if header.get("kind") != KIND:
        raise DataError(f"{path}: this is not a checkpoint of a training; a model alone can be given with --init")
    parts: dict[str, dict[str, np.ndarray]] = {"model": {}, "optimizer": {}}
    try:
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = array
        checkpoint = Checkpoint(**parts, **{name: header[name] for name in HEADER_FIELDS})
        photos, arguments = header.get("photos"), header.get("arguments")
        checkpoint = dataclasses.replace(
            checkpoint,
            finished=header.get("finished") is True,
            photos=photos if are_photos(photos) else None,
            trained_on=photos_of(header, "trained_on"),
            arguments=arguments if are_texts(arguments) else (),
        )
    except KeyError as error:
        raise DataError(f"{path}: the checkpoint lacks or does not know {error}; start again in a new folder") from None
    for name, kind in HEADER_FIELDS.items():
        if not isinstance(header[name], kind) or (kind is int and header[name] < 0):
            raise DataError(
                f"{path}: {name} is {header[name]!r}, wanted a {kind.__name__}; start again in a new folder"
            )
    return checkpoint


def restore(path, model, optimizer, options, photos=None) -> int:
    """Bring model, its generator and optimizer to where the checkpoint left them.

    Parameters
    ----------
    path : path
    model : MaskRCNN
    optimizer : Optimizer
    options : TrainOptions
    photos : dict, optional
        Those of today, as `list_photos` gives them.

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    DataError
        The checkpoint is damaged, or of another architecture, or of a run with other options or on other photos; what
        differs is listed. Or the model of a finished run is not there.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    check_same(path, checkpoint, "options", checkpoint.options, options)  # with another seed, others are held back
    check_photos(path, checkpoint, photos)
    check_same(path, checkpoint, "architecture", checkpoint.config, model.config)
    arrays = read_archive(path.with_name(MODEL))[0] if checkpoint.finished else checkpoint.model
    try:
        model.load_arrays(arrays)
        if not checkpoint.finished:
            optimizer.load_arrays(checkpoint.optimizer)
        model.generator.bit_generator.state = checkpoint.generator
        if "norm_eps" in checkpoint.config:
            set_norm_eps(model, float(checkpoint.config["norm_eps"]))
        model.trained_on = checkpoint.trained_on
        return checkpoint.step
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: the checkpoint does not fit this model: {error}") from error


def check_same(path: Path, checkpoint: Checkpoint, what: str, there: dict, here) -> None:
    """Raise `DataError` if a record has other fields than it had in the run that is gone on with."""
    differences = list_differences(there, dataclasses.asdict(here), defaults_of(here))
    if differences:
        advice = "go on with the command that began it, which index.html beside it has"
        raise refuse(path, checkpoint, what, differences, advice)


def refuse(path: Path, checkpoint: Checkpoint, what: str, differences: list[str], advice: str) -> DataError:
    """The error that says that a run is not the one that is meant, with the advice that holds until it is finished."""
    advice = (
        f"that run is finished; train on from its model in a new folder, with {spell_init(path, checkpoint)}"
        if checkpoint.finished
        else f"{advice}, or start another in a new folder (train --init takes up a model)"
    )
    return DataError(f"{path}: the checkpoint is of a run with other {what} ({'; '.join(differences)}); {advice}")


def spell_init(path: Path, checkpoint: Checkpoint) -> str:
    """The option that begins with the newest weights of a run."""
    return quote_arguments(["--init", str(path.with_name(MODEL) if checkpoint.finished else path)])


def check_photos(path: Path, checkpoint: Checkpoint, photos: dict | None) -> None:
    """Raise `DataError` if there are other photos than in the run that is gone on with."""
    changes = count_changes(checkpoint.photos, photos)
    if changes:
        raise DataError(
            f"{path}: the photos are not those of that run ({'; '.join(changes)}), so some that it was trained on "
            f"could be held back now; restore them, or start in a new folder with {spell_init(path, checkpoint)}"
        )


def list_photos(dataset, validation: Sequence[str] | None) -> dict[str, list[str]]:
    """The names of the photos of a run by what they are for, of a data set that knows them."""
    photos = {"validation": sorted(validation)} if validation else {}
    if hasattr(dataset, "annotations"):
        photos["training"] = sorted(image["file_name"] for image in dataset.annotations()["images"])
    return photos


def are_photos(value) -> bool:
    """Whether it is what `list_photos` gives."""
    lists = value.values() if isinstance(value, dict) else [None]
    return all(are_texts(names) for names in lists)


def are_texts(value) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def count_changes(there: dict | None, here: dict | None) -> list[str]:
    """How many photos are gone and how many are new, in words, for each use that is known on both sides."""
    words = []
    for use in sorted(set(there or ()) & set(here or ())):
        before, now = set(there[use]), set(here[use])
        if before != now:
            words.append(f"for {use} {len(before - now)} of {len(before)} are gone, {len(now - before)} are new")
    return words


def defaults_of(record) -> dict:
    """The defaults of a dataclass's fields, by name, of those that have one."""
    return {
        field.name: field.default for field in dataclasses.fields(record) if field.default is not dataclasses.MISSING
    }


def list_differences(there: dict, here: dict, defaults: dict | None = None) -> list[str]:
    """Each field that differs, in words; what is not known there has its default.

    Tuples and the lists JSON makes of them are the same.
    """
    here, defaults = (
        {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}
        for record in (here, defaults or {})
    )
    words = []
    for name in {**here, **there}:
        if name in FREE_OPTIONS:
            continue
        if name not in here:
            words.append(f"{name} {there[name]} there, which this version of minimrcnn does not know")
        elif name not in there and name not in defaults:
            words.append(f"{name} missing there, {here[name]} here")
        elif name not in there and defaults[name] != here[name]:
            words.append(f"{name} not known there yet, so {defaults[name]}; {here[name]} here")
        elif name in there and there[name] != here[name]:
            words.append(f"{name} {there[name]} there, {here[name]} here")
    return words


def initialize(model, path) -> list[str]:
    """Take over from a file every array that fits, and leave the others as they are.

    Parameters
    ----------
    model : MaskRCNN
    path : path
        A saved model, the checkpoint of a training that was stopped, or published weights (.pth, .safetensors, .npz) of
        a detector or of a classifier; the backbone has to fit as a whole.

    Returns
    -------
    list of str
        What the file has not, or in another shape, as a head for other classes.

    Raises
    ------
    DataError
        The file is damaged, or nothing in it fits, or its backbone does not.
    """
    if not is_ours(path):
        state = load(path)
        try:
            return model.load_state(state, partly=True)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    arrays, header = read_model(path)
    match header:
        case {"config": {"backbone": str(backbone), "norm": str(norm)}}:
            here = model.config  # a ResNet-18 would find all its arrays in a ResNet-34, and scales of other norms
            if backbone != here.backbone or (norm == "group") != (here.norm == "group"):
                raise DataError(
                    f"{path}: its backbone is {backbone} with {norm} norm, wanted {here.backbone} with {here.norm} "
                    "norm, as here; on the command line name the file's with --backbone, or with --architecture"
                )
    mine = model.arrays()
    fitting = {name: arrays[name] for name in mine if name in arrays and arrays[name].shape == mine[name].shape}
    if not fitting:
        raise DataError(f"{path}: none of its {len(arrays)} arrays fits the model; wanted a model of the same backbone")
    model.load_arrays({**mine, **fitting})
    model.trained_on = photos_of(header, "trained_on")
    match header:
        case {"config": {"norm_eps": float(eps)}} if any(name.endswith("running_var") for name in fitting):
            set_norm_eps(model, eps)
    return [name for name in mine if name not in fitting]
