#!/usr/bin/env bash
# Collects in .gpu/ what a machine with a GPU and torch, but without a network, lacks to try raylr:
#
#     bash benchmarks/gpu/pack.sh [IMAGES [BESIDE]]   in the repository's root; some two minutes
#     bash benchmarks/gpu/check.sh                    where the GPU is, in the same tree with .gpu taken along
#
# IMAGES is an archive of images for the step of accuracy, such as CIFAR-10 as JPEG; as many as fit into the limit go along,
# all of the test's among them. The files of the folder BESIDE go along as they are, such as airbench94_muon.py, which
# speedrun.sh trains beside raylr. PYTHON is that machine's version of Python (3.12), PIP the command for pip here. .gpu/ is
# kept out of git.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) limit=$((45 * 1024 * 1024)) images=${1:-} beside=${2:-}
[ -z "$images" ] || images=$(realpath "$images")
[ -z "$beside" ] || beside=$(realpath "$beside")
cd "$here/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf .gpu && mkdir .gpu "$work/site" "$work/wheels"

# Wheels of the versions installed here: raylr's dependencies with all of theirs, without what such a machine's image has.
python3 "$here/wheels.py" >"$work/names"
platforms=()
for number in 17 24 27 28 31 34 35; do platforms+=(--platform "manylinux_2_${number}_x86_64"); done
${PIP:-pip} download -q --no-deps --only-binary=:all: --implementation cp --python-version "${PYTHON:-3.12}" \
  "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$work/wheels" -r "$work/names"
for wheel in "$work"/wheels/*.whl; do unzip -q -o "$wheel" -d "$work/site"; done
rm -rf "$work"/site/ray/{jars,dashboard/client,rllib,llm}
find "$work/site" -type f \( -name '*.so' -o -name raylet -o -name gcs_server \) -exec strip --strip-unneeded {} + || true
info=$work/site/raylr-0.dist-info # raylr runs from its source, and asks for its own version
mkdir "$info" && printf 'Metadata-Version: 2.1\nName: raylr\nVersion: 0\n' >"$info/METADATA"
tar -C "$work/site" -cf - . | nice xz -T0 --x86 --lzma2=preset=6 >.gpu/site.tar.xz

if [ -n "$beside" ]; then find "$beside" -maxdepth 1 -type f -exec cp -t .gpu {} +; fi
if [ -n "$images" ]; then
  python3 - "$images" .gpu/images.tar.xz $((limit - $(du -sb .gpu | cut -f1) - 65536)) <<'PYTHON'
import shutil, sys, tarfile
from pathlib import Path
source, target, room = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if source.stat().st_size <= room:
    shutil.copyfile(source, target)
else:
    share = (0.98 * room / source.stat().st_size - 1 / 6) * 6 / 5  # of the training images, 5 of 6
    with tarfile.open(source) as old, tarfile.open(target, "w:xz") as new:
        for number, member in enumerate(old):
            if not member.isfile() or member.name.startswith("test/") or int((number + 1) * share) > int(number * share):
                new.addfile(member, old.extractfile(member) if member.isfile() else None)
PYTHON
fi
ls -l .gpu
total=$(du -sb .gpu | cut -f1)
echo "$((total / 1048576)) MiB in .gpu, of $((limit / 1048576)) MiB"
((total <= limit))
