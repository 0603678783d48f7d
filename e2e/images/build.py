#!/usr/bin/env python3
"""Owns the two images of Easel, made from binaries that are already built: which file goes into which layer.
It must not compile anything, and it must not know how an archive is written."""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cluster"))

import oci_image  # noqa: E402
from oci_image import File, Folder, Image, Layer  # noqa: E402
from onenode import images, settings, up  # noqa: E402
from onenode.progress import Failure  # noqa: E402

LIBTORCH = "/opt/libtorch"
MODELS = "/models"
# As in the Dockerfiles: public registries and buckets are trusted by the list of authorities that the machine has.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
LABELS = {"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.title": "Easel"}


def program(binary: Path, name: str, search: tuple[Path, ...] = ()) -> tuple[Layer, Layer]:
    """System libraries and the binary apart: only the binary's layer changes from build to build."""
    libraries = Layer("libraries", oci_image.shared_libraries(binary, search=search, exclude=search), compression=1)
    return libraries, Layer("binary", (File(binary, f"/usr/local/bin/{name}", 0o755),), compression=1)


def authorities() -> Layer:
    return Layer("authorities", (File(AUTHORITIES, str(AUTHORITIES), 0o644),))


def operator(binary: Path, tag: str) -> Image:
    return Image(f"localhost/easel-operator:{tag}", ("/usr/local/bin/easel-operator",),
                 (oci_image.base_layer(), authorities(), *program(binary, "easel-operator")), labels=LABELS)


def inference(binary: Path, libtorch: Path | None, models: list[Path], tag: str) -> Image:
    search = (libtorch / "lib",) if libtorch else ()
    libraries, executable = program(binary, "easel-inference", search)
    layers, env = [oci_image.base_layer(), authorities(), libraries], {}
    if libtorch:
        # Half a gigabyte that changes once a year: the least compression packs it in seconds and costs a tenth in size.
        files = tuple(File(libtorch / part, f"{LIBTORCH}/{part}") for part in ("lib", "licenses") if (libtorch / part).is_dir())
        layers.append(Layer("libtorch", files, compression=1))
        env["LD_LIBRARY_PATH"] = f"{LIBTORCH}/lib"
        # libgomp's threads spin while they wait, unless told before main: on shared cores a step took 20 times as long.
        env["OMP_WAIT_POLICY"] = "PASSIVE"
        # A decoder's layers are hundreds of megabytes, fresh from the kernel each time: without huge pages most of their time is page faults.
        env["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    if models:
        files = tuple(File(folder, f"{MODELS}/{folder.name}", 0o644) for folder in models)
        layers.append(Layer("models", files, compression=1))
    layers += [Layer("folders", (Folder("/var/cache/easel", 0o755, oci_image.NONROOT),)), executable]
    return Image(f"localhost/easel-inference:{tag}", ("/usr/local/bin/easel-inference",), tuple(layers), env=env, labels=LABELS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the images of Easel as OCI archives, without Docker.")
    parser.add_argument("--operator", type=Path, help="the easel-operator binary")
    parser.add_argument("--inference", type=Path, help="the easel-inference binary")
    parser.add_argument("--libtorch", type=Path, help="folder with lib/libtorch_cpu.so; left out for a pod without torch")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help=f"folders of weights, copied into {MODELS}")
    parser.add_argument("--tag", default="dev")
    parser.add_argument("--out", type=Path, default=settings.CACHE / "images", help="folder of the archives")
    parser.add_argument("--load", action="store_true", help="import into the running local cluster what is not there yet")
    options = parser.parse_args()
    if not options.operator and not options.inference:
        parser.error("nothing to do: give --operator, --inference or both")
    for path in (options.operator, options.inference, options.libtorch, *options.models):
        if path and not path.exists():
            parser.error(f"{path} does not exist")
    return options


def main() -> None:
    options = arguments()
    wanted = [operator(options.operator, options.tag)] if options.operator else []
    if options.inference:
        wanted.append(inference(options.inference, options.libtorch, options.models, options.tag))
    for image in wanted:
        began = time.monotonic()
        archive = options.out / f"{image.name.rpartition('/')[2].replace(':', '-')}.tar"
        built = oci_image.build(image, archive, settings.CACHE / "layers")
        print(oci_image.report(image, built, time.monotonic() - began), flush=True)
        if options.load:
            with up.exclusive():
                images.load(archive)


if __name__ == "__main__":
    try:
        main()
    except (Failure, FileNotFoundError) as failure:
        sys.exit(f"error: {failure}")
