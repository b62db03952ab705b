"""What an audit allows: arguments whose values decide what is executed, Python's own names, attributes of values."""

from __future__ import annotations

import re
from collections.abc import Mapping

from medseg_ext.sharing.audit.destinations import RELATIVE_PATH
from medseg_ext.sharing.words import words

#: Arguments by which MONAI looks up a class in text, unpickles, fetches or writes. They are held to these values
#: wherever they occur, for a second config merged over the first may add them to any component.
RESTRICTED: dict[str, str] = {
    "reader": "reader",
    "writer": "writer",
    "merger_cls": "merger",
    "allow_pickle": "false",
    "weights_only": "true",
    "pretrained": "false",
    "pretrained_backbone": "false",
    "pretrained_url": "none",
    "download": "false",
    "trust_repo": "false",
    "force_reload": "false",
    "_debug_": "false",
    "init_method": "none",
    "logging_file": "logging",
    "workflow_name": "none",
    "tracking_uri": "tracking",
    "source": "source",
    "filename": "filename",
    "final_filename": "filename",
    "key_metric_filename": "filename",
    "_mode_": "mode",
    "compile_kwargs": "compiler",
    "converter_kwargs": "converter",
    "url": "none",
    "repo": "none",
    "save_handler": "none",
    "output_name_formatter": "none",
    "data_root_dir": "empty",
    "patch_index": "none",
    "extension": "part",
    "output_postfix": "part",
    "output_ext": "part",
    "postfix": "part",
    "file_prefix": "part",
    "metric_details": "names",
    "output_dir": "inside",
    "save_dir": "inside",
    "log_dir": "inside",
    "cache_dir": "inside",
    "output_path": "inside",
    "folder": "inside",
    "results_dir": "inside",
    "filepath": "inside",
}

#: Arguments with names too common to be held everywhere: in a bundle that has a component of this class, wherever they
#: occur in it.
RESTRICTED_OF: dict[str, dict[str, str]] = {
    "TrainingState": {"copy": "inside"},
    "TrackedRun": {"files": "places", "results": "places", "checkpoints": "places"},
}


def restricted_of(name: str) -> Mapping[str, str]:
    """The rules of :data:`RESTRICTED_OF` for a class, by any name that it goes by, in full or bare."""
    return RESTRICTED_OF.get(name.rpartition(".")[2], {})


#: Mappings of which the keys are arguments of a function of torch, by their rule: these arguments, and the texts that
#: they may be, or None for any. Numbers and switches they may be anyway.
KEYWORDS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "compiler": {
        "mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
        "fullgraph": (),
        "dynamic": (),
        "disable": (),
    },
    "converter": {
        "input_names": None,
        "output_names": None,
        "dynamic_axes": None,
        "opset_version": (),
        "export_params": (),
        "do_constant_folding": (),
        "keep_initializers_as_inputs": (),
        "dynamo": (),
        "verbose": (),
    },
}

#: Of functions with restricted arguments, how many that are not restricted come first.
UNRESTRICTED_FIRST = {"torch.distributed.init_process_group": 1}

_READERS = "ITKReader NibabelReader NrrdReader NumpyReader PILReader PydicomReader WSIReader"
_WRITERS = "ITKWriter NibabelWriter PILWriter"

#: Texts that those arguments may be, and how an error words it; None, False and nested components count apart.
TEXTS: dict[str, tuple[re.Pattern[str], str]] = {
    "reader": (re.compile(rf"(?i:{'|'.join(_READERS.split())})"), f"one of {_READERS}"),
    "writer": (re.compile(rf"(?i:{'|'.join(_WRITERS.split())})"), f"one of {_WRITERS}"),
    "merger": (re.compile("AvgMerger"), "AvgMerger"),
    "logging": (re.compile(r"([\w-]+/)*logging\.conf"), "a logging.conf of the bundle"),
    "tracking": (re.compile(r"(?!\w+:)[^$@%].*|sqlite:.*"), "a store on this machine"),
    "filename": (re.compile(r"\w[\w ={},.:-]*\.(log|txt|csv|pt)|\w[\w ={}-]*"), "a name without folders"),
    "source": (re.compile(r"[^/$@%]*|[^$@%].*\.(pt|ts|safetensors)"), "a file of weights, no repository"),
    "part": (re.compile(r"[\w ={},.-]*"), "a part of a name, without folders"),
    # a file is named by each
    "names": (re.compile(r"\w[\w ={},.-]*"), "names without folders"),
    # expressions too, see destinations.py
    "inside": (RELATIVE_PATH, "a relative path without .. or hidden names, or what is put together of such"),
    "mode": (re.compile("default|callable"), "default or callable"),
    "empty": (re.compile(""), "an empty text"),
    # a list; expressions too
    "places": (RELATIVE_PATH, "relative paths without .. or hidden names, or what is put together of such"),
    # mappings
    "compiler": (re.compile(""), "mode, fullgraph, dynamic or disable"),
    "converter": (re.compile(""), ", ".join(KEYWORDS["converter"])),
}

#: Attributes of components that are names of files, without folders.
FILE_NAMES = frozenset({"medseg_ext.transfer.WeightInitializer.FILE"})

#: Python's own functions and types that expressions may use.
BUILTINS = words(
    """
    abs all any bool complex dict divmod enumerate filter float frozenset int isinstance iter len list map max min
    next print range reversed round set slice sorted str sum tuple zip
    """
)

#: Attributes and methods of values whose type is not known before the bundle runs. None of them reads, writes,
#: executes or leads from an object to its module, its class or its frame. ``replace`` is looked at where it is called.
ATTRIBUTES = (
    # texts, lists, mappings
    words(
        """
        append capitalize copy count difference endswith extend find get index insert intersection isdigit items
        join keys lower lstrip partition pop remove reverse rfind rpartition rsplit rstrip setdefault
        sort split splitlines startswith strip title union update upper values zfill
        """
    )
    # arrays and tensors
    | words(
        """
        T abs all any argmax as_tensor argmin argsort astype bool byte ceil clamp clip clone contiguous cpu cuda
        detach device dim double dtype eq exp expand expand_as flatten flip float floor ge gt half int is_cuda
        item le log logical_and logical_not long lt max mean median min mul mode moveaxis movedim ndim ne
        nonzero norm numel numpy permute pow prod repeat repeat_interleave requires_grad requires_grad_ reshape
        round shape sigmoid sign size softmax sqrt squeeze std sub sum tanh to tolist transpose type unsqueeze
        var view where
        """
    )
    # networks, optimisers, schedulers
    | words(
        """
        add_param_group children encoder decoder eval forward get_last_lr load_state_dict modules module
        named_children named_modules named_parameters param_groups parameters state_dict step train zero_grad
        last_epoch base_lrs
        """
    )
    # engines, handlers, metrics, data
    | words(
        """
        add_event_handler aggregate attach batch batch_size best_metric best_metric_epoch collate_fn data
        dataset ema_model epoch epoch_length evaluator get_buffer iteration key_metric_name logger max_epochs
        metric metrics network optimizer output reset run sample sampler scheduler set_epoch set_random_state
        state transform transforms add_noise set_timesteps timesteps disable_share_memory_cache setLevel
        set_target_keys set_box_selector_parameters set_sliding_window_inferer
        """
    )
    # patients of medseg_ext
    | words(
        """
        FILE failures names report sha256 share_of_network studies test validation
        """
    )
    # dates
    | words(
        """
        date isoformat now strftime today total_seconds year month day
        """
    )
)

#: Variables of the environment that expressions may read: those of launchers of several processes.
ENVIRONMENT = words(
    """
    CUDA_VISIBLE_DEVICES LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT OMP_NUM_THREADS RANK WORLD_SIZE
    """
)

#: Switches that ``setattr`` may set, to True or False.
SWITCHES = frozenset(
    f"torch.backends.{name}"
    for name in (
        "cudnn.benchmark",
        "cudnn.deterministic",
        "cudnn.enabled",
        "cudnn.allow_tf32",
        "cuda.matmul.allow_tf32",
    )
)
