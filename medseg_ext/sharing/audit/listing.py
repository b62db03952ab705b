"""Write ``names.txt`` anew, the exact public names that configs may use, and ``operators.txt``, those of TorchScript.

    python -m medseg_ext.sharing.audit.listing

The audit itself imports nothing of MONAI or of a bundle, it only looks names up. The list is made here, from
what is installed: a name gets in when the object behind it is *defined* in a package that is allowed, is public all
along its path, and is not among those that execute, fetch or unpickle what they are given (:data:`DENIED`). The
difference is what a reviewer reads after an update of MONAI, torch or ignite.

A line is a full name (``monai.transforms.LoadImaged``), or a bare one, which MONAI looks for in all its modules and
which is allowed when every module that has it is. A ``~`` in front marks what may be a component (``_target_``) but no
value in an expression: one of its arguments is restricted (:data:`~medseg_ext.sharing.audit.rules.RESTRICTED`), and
in an expression arguments may come by position. Behind it stand arguments that have to be given, for their defaults
fetch. Behind a name without ``~`` stand arguments that say where it writes, with their positions.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from medseg_ext.files import write_atomically
from medseg_ext.sharing.audit.names import NAMES_FILE
from medseg_ext.sharing.audit.rules import RESTRICTED, restricted_of
from medseg_ext.sharing.audit.torchscript import OPERATORS_FILE
from medseg_ext.sharing.words import words

#: Packages and modules whose own public names are listed, with all that lies below them.
MODULES = (
    "monai.apps.deepedit",
    "monai.apps.deepgrow",
    "monai.apps.detection",
    "monai.apps.generation",
    "monai.apps.nuclick",
    "monai.apps.pathology",
    "monai.apps.reconstruction",
    "monai.apps.vista3d",
    "monai.data",
    "monai.engines",
    "monai.handlers",
    "monai.inferers",
    "monai.losses",
    "monai.metrics",
    "monai.networks.blocks",
    "monai.networks.layers",
    "monai.networks.nets",
    "monai.networks.schedulers",
    "monai.optimizers",
    "monai.transforms",
    "ignite.engine",
    "ignite.handlers",
    "ignite.metrics",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.modules",
    "torch.optim",
    "medseg_ext.inferers",
    "medseg_ext.layouts",
    "medseg_ext.losses",
    "medseg_ext.metrics",
    "medseg_ext.networks",
    "medseg_ext.processes",
    "medseg_ext.reports",
    "medseg_ext.tracking",
    "medseg_ext.training",
    "medseg_ext.transfer",
    "medseg_ext.transforms",
    "medseg_ext.workflow",
)

#: Packages that show names of those above under a shorter path.
FACADES = ("torch.nn", "monai.networks")

#: Names of which no module of their own is allowed as a whole, by what they lie in.
SINGLE = {
    "monai": words("__version__"),
    "monai.networks": words("one_hot predict_segmentation eval_mode train_mode"),
    "monai.networks.utils": words("one_hot predict_segmentation eval_mode train_mode"),
    "monai.utils": words(
        """
        ensure_tuple ensure_tuple_rep ensure_tuple_size first fall_back_tuple issequenceiterable set_determinism
        get_seed progress_bar convert_to_numpy convert_to_tensor MAX_SEED misc.set_determinism misc.ensure_tuple
        misc.first
        """
    ),
    "torch": words(
        """
        Generator Size Tensor as_tensor tensor device dtype is_tensor inf nan pi manual_seed seed initial_seed
        no_grad enable_grad inference_mode set_grad_enabled set_float32_matmul_precision set_num_threads
        get_num_threads channels_last channels_last_3d contiguous_format preserve_format strided finfo iinfo
        autocast typename __version__
        """
    ),
    "torch.nn": words("Parameter parallel.DistributedDataParallel"),
    "torch.utils.data": words(
        """
        BatchSampler ChainDataset ConcatDataset DataLoader Dataset IterableDataset RandomSampler Sampler
        SequentialSampler Subset SubsetRandomSampler TensorDataset WeightedRandomSampler default_collate
        random_split get_worker_info DistributedSampler distributed.DistributedSampler
        """
    ),
    "torch.cuda": words(
        """
        is_available device_count current_device set_device empty_cache manual_seed manual_seed_all get_device_name
        synchronize amp.autocast amp.GradScaler
        """
    ),
    "torch.amp": words("autocast GradScaler"),
    "torch.backends": words("mps.is_available"),
    "torch.distributed": words(
        """
        is_available is_initialized is_nccl_available get_rank get_world_size init_process_group
        destroy_process_group barrier
        """
    ),
    "numpy": words(
        """
        abs absolute add all allclose amax amin any arange argmax argmin argsort around array asarray array_equal
        array_split bincount bool_ broadcast_to ceil clip column_stack concatenate copy cos count_nonzero cumsum
        deg2rad diag diff divide dot dtype empty exp expand_dims eye flip float16 float32 float64 floor full hstack
        identity inf int16 int32 int64 int8 isfinite isin isnan linspace log log10 log2 logical_and logical_not
        logical_or logspace max maximum mean median min minimum moveaxis multiply nan ndarray newaxis ones ones_like
        percentile pi power prod quantile ravel repeat reshape roll round sign sin split sqrt squeeze stack std
        subtract sum swapaxes take tan tanh tile transpose triu uint16 uint32 uint64 uint8 unique var vstack where
        zeros zeros_like random.seed random.RandomState random.default_rng linalg.norm linalg.inv
        """
    ),
    "os": words("cpu_count getcwd makedirs sep"),
    "os.path": words(
        """
        abspath basename commonpath dirname exists isabs isdir isfile join normpath realpath relpath sep
        split splitext
        """
    ),
    "glob": words("glob"),
    "math": words("ceil cos exp floor inf log log10 log2 pi sin sqrt"),
    "datetime": words("datetime date timedelta"),
    "time": words("strftime time"),
    "copy": words("deepcopy"),
    "collections": words("OrderedDict"),
    "itertools": words("chain product repeat islice"),
    "logging": words("DEBUG INFO WARNING ERROR"),
}

#: What executes, fetches, unpickles or talks to the network by what it is given, by where it is defined.
DENIED = {
    # any name of torchvision, torchio or cuCIM, given as text
    "monai.transforms.utility.array.TorchVision",
    "monai.transforms.utility.array.RandTorchVision",
    "monai.transforms.utility.array.TorchIO",
    "monai.transforms.utility.array.RandTorchIO",
    "monai.transforms.utility.array.CuCIM",
    "monai.transforms.utility.array.RandCuCIM",
    "monai.transforms.utility.dictionary.TorchVisiond",
    "monai.transforms.utility.dictionary.RandTorchVisiond",
    "monai.transforms.utility.dictionary.TorchIOd",
    "monai.transforms.utility.dictionary.RandTorchIOd",
    "monai.transforms.utility.dictionary.CuCIMd",
    "monai.transforms.utility.dictionary.RandCuCIMd",
    # pickles, and caches of them in folders that a config names
    "monai.data.dataset.PersistentDataset",
    "monai.data.dataset.CacheNTransDataset",
    "monai.data.dataset.LMDBDataset",
    "monai.data.dataset.GDSDataset",
    "monai.data.utils.pickle_hashing",
    "monai.data.utils.pickle_operations",
    # files and addresses of any kind
    "ignite.handlers.checkpoint.Checkpoint",
    "ignite.handlers.checkpoint.DiskSaver",
    "ignite.handlers.checkpoint.ModelCheckpoint",
    "monai.data.csv_saver.CSVSaver",
    "monai.data.dataset.CSVDataset",
    "monai.data.iterable_dataset.CSVIterableDataset",
    "monai.data.utils.create_file_basename",
    "monai.transforms.io.array.SaveImage",
    "monai.inferers.merger.ZarrAvgMerger",
    "monai.data.image_writer.register_writer",
    "monai.data.image_writer.resolve_writer",
    "monai.data.torchscript_utils.load_net_with_metadata",
    "monai.data.torchscript_utils.save_net_with_metadata",
    "monai.data.decathlon_datalist.create_cross_validation_datalist",
    "monai.data.video_dataset.CameraDataset",
    "monai.handlers.utils.write_metrics_reports",
    "monai.transforms.io.array.WriteFileMapping",
    "monai.transforms.io.dictionary.WriteFileMappingd",
    # carries metadata, of which savers make names of files
    "monai.data.meta_tensor.MetaTensor",
    # other machines
    "monai.handlers.mlflow_handler.MLFlowHandler",
    "monai.handlers.clearml_handlers.ClearMLHandler",
    "monai.handlers.clearml_handlers.ClearMLStatsHandler",
    "monai.handlers.clearml_handlers.ClearMLImageHandler",
    # engines compiled elsewhere, compilers
    "monai.handlers.trt_handler.TrtHandler",
    "monai.networks.trt_compiler.trt_compile",
    "monai.networks.layers.gmm.GaussianMixtureModel",
    # weights or code from elsewhere, whatever the arguments
    "monai.losses.perceptual.PerceptualLoss",
    "monai.losses.perceptual.MedicalNetPerceptualSimilarity",
    "monai.losses.perceptual.RadImageNetPerceptualSimilarity",
    "monai.losses.perceptual.TorchvisionModelPerceptualSimilarity",
    "monai.networks.nets.torchvision_fc.TorchVisionFCModel",
    "monai.networks.nets.transchex.BertPreTrainedModel",
    "monai.networks.nets.transchex.MultiModal",
    "monai.networks.nets.transchex.Transchex",
    "monai.networks.nets.cell_sam_wrapper.CellSamWrapper",
    "monai.networks.nets.resnet.get_pretrained_resnet_medicalnet",
    "monai.networks.nets.resnet.get_medicalnet_pretrained_resnet_args",
    "monai.networks.blocks.text_embedding.TextEncoder",
    "ignite.metrics.gan.fid.FID",
    "ignite.metrics.gan.inception_score.InceptionScore",
    "ignite.metrics.gan.utils.InceptionModel",
    # a module or a class is found by text
    "monai.networks.nets.flexible_unet.FlexUNetEncoderRegister",
    "torch.nn.functional.boolean_dispatch",
}

#: Modules of which nothing is listed: loggers that talk to servers or write where they are told, and what is there for
#: MONAI's own documentation.
DENIED_MODULES = (
    "ignite.handlers.clearml_logger",
    "ignite.handlers.fbresearch_logger",
    "ignite.handlers.logger_utils",
    "ignite.handlers.mlflow_logger",
    "ignite.handlers.neptune_logger",
    "ignite.handlers.polyaxon_logger",
    "ignite.handlers.tensorboard_logger",
    "ignite.handlers.visdom_logger",
    "ignite.handlers.wandb_logger",
    "monai.data.nvimgcodec_pydicom_plugin",
    "monai.apps.nuclick.dataset_prep",
    "monai.apps.deepgrow.dataset",
    "monai.networks.nets.transchex",
    "monai.transforms.utils_create_transform_ims",
)

#: Of torch's functions on tensors, those that read files or hand out other objects.
DENIED_TENSOR_FUNCTIONS = {"from_file", "import_ir_module", "frombuffer", "fork", "wait"}

#: Operators of TorchScript that read or write files.
DENIED_OPERATORS = {"save", "from_file"}

#: Functions of medseg_ext that write where they are told to.
DENIED_STARTS = ("write_", "draw_", "pack_", "make_piece")

#: Functions that are told a folder and write nothing there.
NO_WRITERS = {"medseg_ext.layouts.masks.mask_files", "medseg_ext.layouts.segmentations.label_map_files"}

#: Functions of Python that write, with the argument that says where and its place.
PYTHON_WRITERS = {"os.makedirs": "name:0"}

_TOPS = {"monai", "ignite", "torch", "medseg_ext"}


def _modules_below(name: str) -> Iterator[ModuleType]:
    try:
        module = importlib.import_module(name)
    except Exception:  # noqa: BLE001 - an optional package is missing: its names are for nobody here
        return
    yield module
    for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if not info.name.startswith("_"):
            yield from _modules_below(f"{name}.{info.name}")


def _home(value: Any) -> str:
    """Where an object says that it is defined."""
    return f"{getattr(value, '__module__', None) or ''}.{getattr(value, '__qualname__', '')}"


def _below(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _is_listed(value: Any, package: str) -> bool:
    if not (inspect.isclass(value) or inspect.isroutine(value)) or isinstance(value, ModuleType):
        return False
    module = getattr(value, "__module__", None) or ""
    if module.split(".")[0] not in _TOPS:
        # torch's builtin functions name no module, or one of its C++ parts
        return inspect.isbuiltin(value) and package == "torch.nn.functional" and not value.__name__.startswith("_")
    if _home(value) in DENIED or _below(module, DENIED_MODULES):
        return False
    return _below(module, MODULES) and not any(part.startswith("_") for part in module.split(".")[1:])


def _line(name: str, value: Any) -> str:
    """The line of a name, with a mark where one of its arguments is restricted."""
    if name in PYTHON_WRITERS:
        return f"{name} {PYTHON_WRITERS[name]}"
    try:
        parameters = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return name
    rules = RESTRICTED | dict(restricted_of(getattr(value, "__name__", "")))
    restricted = [parameter for parameter in parameters.values() if parameter.name in rules]
    if _home(value) in NO_WRITERS:
        restricted = []
    if restricted and all(rules[parameter.name] == "inside" for parameter in restricted):
        order = [p.name if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) else "" for p in parameters.values()]
        return " ".join([name, *(f"{p.name}:{order.index(p.name) if p.name in order else -1}" for p in restricted)])
    fetching = [p.name for p in restricted if rules[p.name] == "false" and p.default not in (False, None)]
    return " ".join([f"~{name}", *fetching]) if restricted else name


def _names_of(module: ModuleType) -> Iterator[tuple[str, Any]]:
    ours = module.__name__.startswith("medseg_ext.")
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, ModuleType):
            continue
        if ours and (name not in getattr(module, "__all__", ()) or name.startswith(DENIED_STARTS)):
            continue
        shown = hasattr(module, "__path__") or getattr(value, "__module__", None) == module.__name__
        if (shown or inspect.isbuiltin(value)) and _is_listed(value, module.__name__):
            yield f"{module.__name__}.{name}", value


def _tensor_functions() -> Iterator[tuple[str, Any]]:
    import torch

    functions = {name for name in dir(torch._C._VariableFunctions) if not name.startswith("_")}
    functions |= set(torch.functional.__all__)
    for name in functions - DENIED_TENSOR_FUNCTIONS:
        if callable(getattr(torch, name, None)):
            yield f"torch.{name}", getattr(torch, name)
    for name, value in vars(torch).items():
        if isinstance(value, torch.dtype):
            yield f"torch.{name}", value


def _constants() -> Iterator[tuple[str, Any]]:
    """MONAI's enumerations with their members, and the constants of medseg_ext's packages."""
    import monai.utils.enums as enums

    for kind in vars(enums).values():
        if inspect.isclass(kind) and kind.__module__ == enums.__name__ and not kind.__name__.startswith("_"):
            for member in vars(kind):
                if member.isupper() and not member.startswith("_"):
                    for path in ("monai.utils", "monai.utils.enums"):
                        if not hasattr(importlib.import_module(path), kind.__name__):
                            continue
                        yield f"{path}.{kind.__name__}.{member}", getattr(kind, member)
    for name in MODULES:
        if name.startswith("medseg_ext."):
            module = importlib.import_module(name)
            for public in getattr(module, "__all__", ()):
                value = getattr(module, public)
                if not callable(value) and not isinstance(value, ModuleType | enum.EnumMeta):
                    yield f"{name}.{public}", value


def _bare(full: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names without a path, for which MONAI searches every module that it has imported."""
    known = {id(value) for name, value in full.items() if name.startswith("monai.")}
    found: dict[str, list[Any]] = {}
    for module in [module for name, module in list(sys.modules.items()) if name.split(".")[0] == "monai"]:
        for name, value in vars(module).items():
            kinds = inspect.isclass(value) or inspect.isfunction(value)
            if kinds and value.__module__ == module.__name__ and not name.startswith("_"):
                found.setdefault(name, []).append(value)
    for name, values in found.items():
        if all(id(value) in known for value in values):
            yield name, values[0]


def listed_names() -> dict[str, Any]:
    """Every name that is allowed here and now, with the object behind it."""
    import monai  # noqa: F401 - imports every submodule, in which bare names are looked for

    full: dict[str, Any] = {}
    for name in MODULES:
        for module in _modules_below(name):
            full.update(_names_of(module))
    for name in FACADES:
        full.update(_names_of(importlib.import_module(name)))
    for name in (f"{parent}.{name}" for parent, names in SINGLE.items() for name in names):
        value: Any = importlib.import_module(name.split(".")[0])
        parts = name.split(".")
        for position, part in enumerate(parts[1:], start=2):
            value = (
                getattr(value, part) if hasattr(value, part) else importlib.import_module(".".join(parts[:position]))
            )
        full[name] = value
    full.update(_tensor_functions())
    full.update(_constants())
    return dict(sorted([*full.items(), *_bare(full)], key=lambda item: item[0]))


def listed_operators() -> set[str]:
    """Torch's operators, of which TorchScript is made, but those that read or write files."""
    import torch

    names = {schema.name for schema in torch._C._jit_get_all_schemas()}
    operators = {name.removeprefix("aten::") for name in names if name.startswith("aten::")}
    return {name for name in operators if not name.startswith("_test_")} - DENIED_OPERATORS


def main() -> None:
    """Write both files."""
    lines = [_line(name, value) for name, value in listed_names().items()]
    for path, content in ((NAMES_FILE, lines), (OPERATORS_FILE, sorted(listed_operators()))):
        write_atomically(Path(path), "\n".join(content) + "\n")
        print(f"{path}: {len(content)} names")


if __name__ == "__main__":
    main()
