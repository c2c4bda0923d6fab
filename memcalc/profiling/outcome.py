"""The footprint of a run on a device with counters, as far as it got."""

from collections.abc import Mapping
from typing import Any

from memcalc.footprint import Footprint
from memcalc.profiling.facts import Facts
from memcalc.profiling.failing import COUNTS, PEAKS, Failure
from memcalc.profiling.pinning import Kernels
from memcalc.profiling.recorded import AtPeak
from memcalc.profiling.run import Run
from memcalc.realize import describing, versions

_UNTOLD = (
    "the allocator's record does not say which operator a block belongs to: measured.at_peak_known holds what is told"
)


def footprint_of_run(
    run: Run, facts: Facts, kernels: Kernels, peak: AtPeak | None, failure: Failure | None, seconds: float
) -> Footprint:
    """All that was measured. After a failure the peaks are unknown: the run would have gone on."""
    facts.note("alloc_retries", run.device.memory.levels().retries, "this backend of torch does not count them")
    meter, unavailable = run.meter, {f"measured.{name}": reason for name, reason in facts.unavailable.items()}
    fields: dict[str, Any] = dict.fromkeys((*PEAKS, *COUNTS))
    if failure is not None:
        facts.values.update(reached_allocated=meter.peak_allocated, reached_reserved=meter.peak_reserved)
        unavailable |= dict.fromkeys(PEAKS, f"the run did not reach its end, {failure.line}")
    else:
        fields["peak_allocated"], fields["peak_phase"] = meter.peak_allocated, meter.peak_phase
        fields["peak_reserved"] = meter.peak_reserved
        fields["peak_live"] = None if peak is None else peak.live
        fields["device_total"] = _sum(meter.peak_reserved, facts.values.get("outside_bytes"))
        unavailable |= _why_not(fields, facts)
    kernel = None
    if run.model is None:
        unavailable |= dict.fromkeys(COUNTS, "the model was not loaded")
    else:
        kernel = kernels.name(run.model)
        fields["total_params"], fields["trainable_params"] = describing.counted(run.model)
        fields["checkpoint_bytes"] = describing.checkpoint_bytes(run.model)
    return Footprint(
        producer="profile",
        workload={**run.workload.to_json(), "attention_kernel": kernel},
        phases=tuple(phase for phase in meter.phases() if failure is None or phase.name != failure.phase),
        unavailable=unavailable,
        versions={**versions.installed(), **_backend_versions(facts)},
        warnings=(*run.workload.warnings, *_warnings(facts.values)),
        seconds=seconds,
        largest=() if peak is None or failure is not None else peak.largest,
        outcome="ok" if failure is None else failure.outcome,
        measured=facts.values,
        **fields,
    )


def _why_not(fields: Mapping[str, Any], facts: Facts) -> dict[str, str]:
    uncounted = "this backend of torch counts no peaks"
    reasons = {"peak_allocated": uncounted, "peak_phase": uncounted, "peak_reserved": uncounted}
    reasons["peak_live"] = facts.unavailable.get("at_peak_known", "")
    reasons["at_peak"] = facts.unavailable.get("at_peak_known", _UNTOLD)
    reasons["device_total"] = facts.unavailable.get("outside_bytes", uncounted)
    return {name: reasons[name] for name in PEAKS if fields[name] is None}


def _sum(reserved: int | None, outside: int | None) -> int | None:
    return None if reserved is None or outside is None else reserved + outside


def _backend_versions(facts: Facts) -> dict[str, str]:
    import torch

    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": facts.values.get("driver")}
    return {name: str(version) for name, version in found.items() if version is not None}


def _warnings(values: Mapping[str, Any]) -> list[str]:
    found = []
    if values.get("other_processes"):
        found.append(f"{values['other_processes']} other processes computed on this card")
    if values.get("alloc_retries"):
        found.append(
            f"the card was full {values['alloc_retries']} times and the cache was emptied for room: with more memory "
            "the run would reserve more"
        )
    return found
