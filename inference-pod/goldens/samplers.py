"""What diffusers' schedulers compute: whole runs with given outputs of a model, and runs of the tiny checkpoints.

`make.py` calls it. Every case is a scheduler file, as a checkpoint would have it, so that reading it is proved too.
"""

import inspect
import math

import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
ZERO_SNR = SCALED | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
# As requests name them: the class, and what the name itself asks of it.
SAMPLERS = {
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
}
# Of draws, one after the other: fewer than 16 numbers, whole rows of 16, and not go through torch in different ways.
SHAPES = [(3,), (1, 4, 2, 2), (1, 4, 3, 7)]
# Options that change what a sampler computes: sampler, steps, options.
OPTIONS = {
    "order_1": ("dpmpp_2m", 6, {"solver_order": 1}),
    "order_3": ("dpmpp_2m", 7, {"solver_order": 3}),
    "order_3_to_the_end": ("dpmpp_2m", 16, {"solver_order": 3, "final_sigmas_type": "sigma_min"}),
    "order_3_with_noise": ("dpmpp_2m_sde", 7, {"solver_order": 3}),
    "by_heun": ("dpmpp_2m", 6, {"solver_type": "heun"}),
    "by_heun_with_noise": ("dpmpp_2m_sde", 6, {"solver_type": "heun"}),
    "no_lower_order": ("dpmpp_2m", 6, {"lower_order_final": False, "final_sigmas_type": "sigma_min"}),
    "long": ("dpmpp_2m", 16, {}),
    "euler_at_final": ("dpmpp_2m", 16, {"euler_at_final": True, "final_sigmas_type": "sigma_min"}),
    "karras_to_sigma_min": ("dpmpp_2m_karras", 6, {"final_sigmas_type": "sigma_min"}),
    "karras_with_noise": ("dpmpp_2m_sde", 6, {"use_karras_sigmas": True}),
    "karras_cosine": (
        "dpmpp_2m_karras", 7, {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}),
    "another_solvers_file": ("dpmpp_2m", 6, {"solver_type": "bh1"}),
    "unipc_1": ("unipc", 6, {"solver_order": 1}),
    "unipc_3": ("unipc", 7, {"solver_order": 3}),
    "unipc_3_to_the_end": (
        "unipc", 7, {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"}),
    "unipc_bh1": ("unipc", 6, {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    "unipc_uncorrected": ("unipc", 6, {"disable_corrector": [0, 2]}),
    "unipc_karras": ("unipc", 6, {"use_karras_sigmas": True}),
    "unipc_cosine": ("unipc", 6, {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}),
    "heun_karras": ("heun", 5, {"use_karras_sigmas": True}),
    "heun_clipped": ("heun", 4, {"clip_sample": True, "clip_sample_range": 1.5}),
    "euler_karras": ("euler", 6, {"use_karras_sigmas": True}),
    "euler_to_sigma_min": ("euler", 6, {"final_sigmas_type": "sigma_min"}),
    "fixed_small_log": ("ddpm", 5, {"variance_type": "fixed_small_log"}),
    "fixed_large": ("ddpm", 5, {"variance_type": "fixed_large"}),
    "ddpm_clipped": ("ddpm", 5, {"clip_sample": True, "clip_sample_range": 2.0}),
    "lcm_clipped": ("lcm", 4, {"clip_sample": True}),
    "lcm_distilled": ("lcm", 7, {"original_inference_steps": 20, "timestep_scaling": 7.0}),
}
SHIFTS = {"sd3": (3.0, 5), "plain": (1.0, 4), "one": (3.0, 1)}


def cases():
    """Name of each: class, sampler, steps, what its file says, what the sampler's name adds."""
    euler = {"euler": (EulerDiscreteScheduler, {})}
    out = {}
    for sampler, (kind, more) in SAMPLERS.items():
        for prediction in ["epsilon", "v_prediction", "sample"]:
            if (sampler, prediction) == ("euler_ancestral", "sample"):
                continue  # not implemented there
            for spacing in ["leading", "linspace", "trailing"]:
                file = SCALED | {"prediction_type": prediction, "timestep_spacing": spacing}
                out[f"{sampler}.{prediction}.{spacing}"] = (kind, sampler, 6, file, more)
        # Two steps of Heun's would divide a difference of f32s by the least noise and multiply it by the largest.
        for steps in [1, 3, 30]:
            out[f"{sampler}.steps.{steps}"] = (kind, sampler, steps, SCALED, more)
        if sampler != "heun":
            out[f"{sampler}.zero_snr"] = (kind, sampler, 5, ZERO_SNR, more)
    for name, (sampler, steps, options) in OPTIONS.items():
        kind, more = (SAMPLERS | euler)[sampler]
        out[f"options.{name}"] = (kind, sampler, steps, SCALED | options, {} if "clip_sample" in options else more)
    return out


def solve(scheduler, steps, outputs):
    """Times, noise levels, and the latents after every call of a model that answers with `outputs` in turn."""
    generator = torch.Generator().manual_seed(5)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        # By the first time it would look for its step, and find the second of two that round to one.
        scheduler.set_begin_index(0)
    latents = torch.randn(outputs[0].shape, generator=generator) * getattr(scheduler, "init_noise_sigma", 1.0)
    draws = "generator" in inspect.signature(scheduler.step).parameters
    kept = []
    for output, time in zip(outputs, scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(latents, time)
        more = {"generator": generator} if draws else {}
        latents = scheduler.step(output, time, latents, **more).prev_sample
        kept.append(latents)
    out = {"timesteps": scheduler.timesteps.float(), "latents": torch.cat(kept)}
    # DDPM and LCM have none.
    return out | ({"sigmas": scheduler.sigmas} if hasattr(scheduler, "sigmas") else {})


def solvers():
    """The tensors, and the scheduler files that they belong to."""
    generator = torch.Generator().manual_seed(6)
    outputs = torch.randn(59, 1, 4, 4, 4, generator=generator)
    tensors, files = {"outputs": outputs}, {}
    for name, (kind, sampler, steps, file, more) in cases().items():
        tensors |= {f"{name}.{key}": value for key, value in solve(kind(**file, **more), steps, outputs).items()}
        files[name] = {"sampler": sampler, "steps": steps, "file": {"_class_name": kind.__name__} | file}
    for name, (shift, steps) in SHIFTS.items():
        found = solve(FlowMatchEulerDiscreteScheduler(shift=shift), steps, outputs)
        tensors |= {f"flow.{name}.{key}": value for key, value in found.items()}
    tensors |= {f"flow.flux.{key}": value for key, value in flux(outputs).items()}
    for shape in SHAPES:
        generator = torch.Generator().manual_seed(5)
        drawn = [torch.randn(shape, generator=generator) for _ in range(3)]
        tensors[f"draws.{'x'.join(map(str, shape))}"] = torch.stack(drawn)
    # Word for word as diffusers writes them into checkpoints.
    whole = {kind.__name__: kind().to_json_string() for kind, _ in SAMPLERS.values()}
    return tensors, {"cases": files, "whole_files": whole}


def flux(outputs):
    """FLUX gives levels of its own and a shift by the picture's size."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    plain = scheduler.set_timesteps
    levels = [1.0, 0.75, 0.5, 0.25]
    scheduler.set_timesteps = lambda _steps: plain(sigmas=levels, mu=math.log(2.5))
    return solve(scheduler, 4, outputs)


def runs(name, pipe, size, prompts):
    """Five steps with guidance of a tiny checkpoint by every sampler: the latents after each model call."""
    out, config = {}, pipe.scheduler.config
    for sampler, (kind, more) in SAMPLERS.items():
        # As `StableDiffusionPipeline` does with schedulers that it loads; see `run` in make.py.
        pipe.scheduler = kind.from_config(config, **({"clip_sample": False} | more))
        kept = []

        def keep(_pipe, _step, _time, tensors, kept=kept):
            kept.append(tensors["latents"].clone())
            return tensors

        pipe(
            prompts[0],
            negative_prompt="red apple",
            num_inference_steps=5,
            guidance_scale=3.0,
            width=size[0],
            height=size[1],
            generator=torch.Generator().manual_seed(7),
            output_type="latent",
            callback_on_step_end=keep,
        )
        out[f"{name}.{sampler}"] = torch.cat(kept)
    pipe.scheduler = type(pipe.scheduler).from_config(config)
    return out
