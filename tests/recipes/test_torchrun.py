"""Distillation on two nodes, which are two agents of torchrun on this machine, and the death of a process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from speechbrain_bccmt.inference import SpeakerVerification
from speechbrain_bccmt.training.curves import read_train_log
from tests.recipes.test_recipes import COMMON, ROOT, TRAINING_FLAGS, VOXCELEB, row_of, run
from tests.training.two_processes import free_port

SECONDS = 200


def torchrun_on_two_nodes(folder, script, *arguments):
    """Run the script under two agents, a process each; fail after a time limit."""
    agent = f"-m torch.distributed.run --nnodes=2 --nproc_per_node=1 --max-restarts=1 --monitor-interval=0.1 \
        --rdzv-id=test --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:{free_port()}"
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    nodes = [
        subprocess.Popen(
            [sys.executable, *agent.split(), str(script), *arguments],
            env=os.environ | environment,
            stdout=(folder / f"node{node}.txt").open("w"),
            stderr=subprocess.STDOUT,
        )
        for node in range(2)
    ]
    deadline = time.monotonic() + SECONDS
    try:
        for node in nodes:
            node.wait(deadline - time.monotonic())
    finally:
        for node in nodes:
            node.terminate()  # an agent takes its workers with it, within half a minute
        for node in nodes:
            node.wait(40)
    outputs = "\n".join((folder / f"node{node}.txt").read_text() for node in range(2))
    assert [node.returncode for node in nodes] == [0, 0], outputs


def steps_of(notes, start):
    """Return a dict of epoch and step to the utterances of both processes."""
    lines = [
        [line.split() for line in (notes / f"start{start}-process{rank}.txt").read_text().splitlines()]
        for rank in (0, 1)
    ]
    assert [line[:2] for line in lines[0]] == [line[:2] for line in lines[1]]
    return {(int(mine[0]), int(mine[1])): mine[2:] + yours[2:] for mine, yours in zip(*lines, strict=True)}


def test_a_killed_distillation_on_two_nodes_resumes_and_ends_and_its_model_verifies(corpus, models, tmp_path):
    (tmp_path / "notes").mkdir()
    output, yaml = tmp_path / "output", ROOT / "hparams" / "bccmt_tiny_kd.yaml"
    flags = f"{COMMON} {VOXCELEB} {TRAINING_FLAGS} --teacher_source={{teacher}} --embedding_weight=1.0 \
        --distributed_backend=gloo --ckpt_interval_minutes=0 --ckpt_interval_steps=2"
    flags = flags.replace("batch_size=4", "batch_size=2").format(output=output, **corpus, **models).split()
    script = Path(__file__).with_name("killed_once.py")
    torchrun_on_two_nodes(tmp_path, script, str(tmp_path / "notes"), str(yaml), *flags)

    first, second = steps_of(tmp_path / "notes", 0), steps_of(tmp_path / "notes", 1)
    # Four speakers' sixteen utterances make four steps; killed after the third, it goes on from the checkpoint of two.
    assert list(first) == [*((1, step) for step in (1, 2, 3, 4)), *((2, step) for step in (1, 2, 3))]
    assert list(second) == [(2, 3), (2, 4)] and second[2, 3] == first[2, 3]
    whole = [name for step in (1, 2, 3, 4) for name in first[1, step]]
    resumed = first[2, 1] + first[2, 2] + second[2, 3] + second[2, 4]
    assert len(set(whole)) == 16 and sorted(resumed) == sorted(whole) and resumed != whole

    lines = (output / "train_log.txt").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch: 1", "epoch: 2"]
    assert all("attention_loss" in line and "valid eer" in line and "nan" not in line for line in lines)
    assert (output / "training_curves.png").is_file() and len(list(output.glob("save/CKPT+*"))) <= 2
    verifier = SpeakerVerification.from_hparams(output)
    names = [str(corpus["corpus"] / "wav" / name) for name in ("id06/s0/00000.wav", "id06/s1/00001.wav")]
    assert -1 <= float(verifier.verify_files(*names, threshold=0.5)[0]) <= 1

    # One process takes it from there.
    flags = "--teacher_source={teacher} --embedding_weight=1.0 --number_of_epochs=3"
    assert run(row_of("bccmt_tiny_kd"), output, flags, **corpus, **models) == 0
    assert [line["epoch"] for line in read_train_log(output / "train_log.txt")] == [1, 2, 3]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_distillation_runs_on_all_gpus_by_nccl_and_its_model_verifies(corpus, models, tmp_path):
    output, yaml = tmp_path / "output", ROOT / "hparams" / "bccmt_tiny_kd.yaml"
    flags = f"{COMMON} {VOXCELEB} {TRAINING_FLAGS} --teacher_source={{teacher}} --embedding_weight=1.0 \
        --distributed_backend=nccl --precision=bf16"
    flags = flags.replace("--device=cpu", "--device=cuda").format(output=output, **corpus, **models).split()
    agent = f"-m torch.distributed.run --standalone --nproc_per_node={torch.cuda.device_count()}"
    script = ROOT / "recipes" / "VoxCeleb" / "SpeakerRec" / "train_speaker_embeddings.py"
    command = [sys.executable, *agent.split(), str(script), str(yaml), *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert [line["epoch"] for line in read_train_log(output / "train_log.txt")] == [1, 2]
    names = [str(corpus["corpus"] / "wav" / name) for name in ("id06/s0/00000.wav", "id06/s1/00001.wav")]
    assert -1 <= float(SpeakerVerification.from_hparams(output).verify_files(*names, threshold=0.5)[0]) <= 1


def test_too_few_gpus_are_said_with_the_way_out(corpus, models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    assert run(row_of("bccmt"), tmp_path, **corpus, **models) == 2
    assert "--distributed_backend=gloo" in capsys.readouterr().err
