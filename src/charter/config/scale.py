"""Past one process: how many train together, and where generation and labelling fan out to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from charter.config.base import Count, Section


class ScaleConfig(Section):
    """No setting here changes a result by more than rounding: runs may be resumed with others."""

    processes: Count = 1
    """Processes that train together, over all machines."""
    sharding: Literal["none", "ddp", "fsdp"] = "none"
    """ddp: each process holds the whole model; fsdp: weights, gradients and optimiser state are split (FSDP2)."""
    launch: tuple[str, ...] = ()
    """What starts the processes, as [torchrun, --standalone, --nproc-per-node, "2"]; none: Charter, on this machine alone."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """How often a stage is relaunched from its last checkpoint where a process died, and a worker of Ray replaced."""
    stall_seconds: Annotated[float, Field(gt=0)] = 1800.0
    """No sign of life for so long counts as death: longer than loading the models and one step take."""

    fan_out: Literal["local", "ray"] = "local"
    """Who generates in 1-revise and 3-sample: this process, or workers of Ray Data (RAY_ADDRESS; none: Ray on this machine)."""
    workers: Count = 2
    """fan_out ray: workers, each with the model in its own memory."""

    @model_validator(mode="after")
    def _sharding_goes_with_processes(self) -> ScaleConfig:
        if (self.processes > 1) != (self.sharding != "none"):
            raise ValueError(
                f"processes is {self.processes} and sharding {self.sharding!r}: several processes need ddp or fsdp, and one "
                "needs none"
            )
        return self
