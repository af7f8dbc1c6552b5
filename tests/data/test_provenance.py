"""Generated files say what they are: read back by C2PA's own library and by PyAV."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fedtalk.data import credentials as keys
from fedtalk.data.provenance import EDITED, GENERATED, OFFLINE, Provenance, read_provenance
from fedtalk.data.video_writer import VideoWriter
from fedtalk.data.visible_mark import draw_mark
from fedtalk.errors import ArtifactError, ConfigurationError, OutputError


@pytest.fixture(autouse=True)
def _no_keys_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (keys.CERTIFICATE, keys.KEY, keys.TIMESTAMP):
        monkeypatch.delenv(name, raising=False)


def _write(path: Path, provenance: Provenance | None, metadata: dict[str, str] | None = None) -> Path:
    with VideoWriter(path, audio=np.full(3200, 0.1, np.float32), provenance=provenance, metadata=metadata) as writer:
        for level in range(5):
            writer.write(np.full((32, 32, 3), 40 * level, np.uint8))
    return path


def _tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def test_a_generated_file_names_its_model_and_adapters_in_manifest_and_metadata(tmp_path: Path) -> None:
    made = Provenance(GENERATED, "0123abcd", {"anna": 0.7, "bert": 0.3})
    path = _write(tmp_path / "talk.mp4", made)
    said = read_provenance(path)
    assert (said.state, said.kind, said.facts, said.parents) == ("Valid", "trainedAlgorithmicMedia", made.facts, 0)
    tags = _tags(path)
    assert tags["synthetic"] == "true" and tags["digital_source_type"].endswith("/trainedAlgorithmicMedia")
    assert all(word in tags["comment"] for word in ("Synthetic", "0123abcd", "anna x 0.7", "bert x 0.3"))
    assert json.loads(tags["fedtalk"]) == made.facts
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5


def test_a_dubbed_file_carries_the_history_of_its_recording(tmp_path: Path) -> None:
    recording = _write(tmp_path / "recording.mp4", Provenance(GENERATED, "first"))
    edited = Provenance(EDITED, "second", source=recording)
    path = _write(tmp_path / "dub.mp4", edited, {"title": "At home", "comment": "by hand"})
    said = read_provenance(path)
    assert (said.state, said.kind, said.parents) == ("Valid", "compositeWithTrainedAlgorithmicMedia", 1)
    assert said.facts["backbone"] == "second"
    assert b"first" in path.read_bytes()  # in the parent's own manifest
    tags = _tags(path)
    assert tags["title"] == "At home"
    assert tags["comment"].startswith("Edited by AI") and tags["comment"].endswith("; by hand")


def test_a_recording_that_c2pa_cant_look_into_is_a_parent_all_the_same(tmp_path: Path) -> None:
    recording = tmp_path / "recording.mkv"
    recording.write_bytes(b"\x1aE\xdf\xa3" + bytes(300))
    path = _write(tmp_path / "dub.mp4", Provenance(EDITED, "b", source=recording))
    assert read_provenance(path).parents == 1


def test_a_changed_file_is_found_out(tmp_path: Path) -> None:
    path = _write(tmp_path / "talk.mp4", Provenance(GENERATED, "b"))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"mdat") + 100] ^= 1
    path.write_bytes(bytes(content))
    assert read_provenance(path).state == "Invalid"


def test_a_file_without_a_manifest_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "plain.mp4", None)
    assert "synthetic" not in _tags(path)
    with pytest.raises(ArtifactError, match=r"plain\.mp4: no content credentials can be read"):
        read_provenance(path)


def _own_credentials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Files as a user has them, made by this module's own authority; returns the root's certificate."""
    made = keys.test_credentials.__wrapped__()
    (folder / "chain.pem").write_bytes(made.chain)
    (folder / "key.pem").write_bytes(made.key)
    monkeypatch.setenv(keys.CERTIFICATE, str(folder / "chain.pem"))
    monkeypatch.setenv(keys.KEY, str(folder / "key.pem"))
    return made.root


def test_the_users_certificate_signs_and_its_authority_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import c2pa

    root = _own_credentials(tmp_path, monkeypatch)
    path = _write(tmp_path / "talk.mp4", Provenance(GENERATED, "b"))
    trusting = {**OFFLINE, "trust": {"trust_anchors": root.decode()}}
    assert read_provenance(path, c2pa.Context.from_dict(trusting)).state == "Trusted"
    assert read_provenance(path).state == "Valid"  # nobody else knows that authority
    strangers = {**OFFLINE, "trust": {"trust_anchors": keys.test_credentials().root.decode()}}
    assert read_provenance(path, c2pa.Context.from_dict(strangers)).state == "Valid"


def test_credentials_that_dont_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _own_credentials(tmp_path, monkeypatch)
    (tmp_path / "key.pem").write_bytes(keys.test_credentials().key)
    with pytest.raises(ConfigurationError, match="does not belong to the first certificate"):
        keys.credentials()
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(ArtifactError, match="expected PEM files"):
        keys.credentials()
    monkeypatch.delenv(keys.KEY)
    with pytest.raises(ConfigurationError, match="set both FEDTALK_C2PA_CERTIFICATE and FEDTALK_C2PA_KEY"):
        keys.credentials()


def test_a_certificate_that_c2pa_forbids_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority's own certificate: it may sign certificates, not claims."""
    made = keys.test_credentials()
    forbidden = x509.load_pem_x509_certificates(made.chain)[1].public_bytes(serialization.Encoding.PEM)
    monkeypatch.setattr("fedtalk.data.provenance.credentials", lambda: replace(made, chain=forbidden))
    with pytest.raises(OutputError, match="could not be signed"):
        _write(tmp_path / "talk.mp4", Provenance(GENERATED, "b"))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected kind trainedAlgorithmicMedia or"):
        Provenance("photograph", "b")


@pytest.mark.parametrize("shape", [(64, 64, 3), (480, 360, 3), (720, 1280, 3)])
def test_the_visible_mark_is_light_on_dark_in_the_corner_and_nowhere_else(shape: tuple[int, int, int]) -> None:
    for background in (0, 255):
        frame = np.full(shape, background, np.uint8)
        marked = draw_mark(frame)
        assert (frame == background).all()
        corner = marked[-shape[0] // 3 :]
        assert corner.max() > 190 and corner.min() < 70
        assert np.array_equal(marked[: shape[0] // 2], frame[: shape[0] // 2])
