#!/usr/bin/env python3
"""Owns the tests that need no cluster and no root: image archives, and telling our processes from strangers.
It must not start anything but short-lived children of its own."""

import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))

import oci_image  # noqa: E402
from oci_image import File, Folder, Image, Layer, Link, Text  # noqa: E402
from onenode import files, process, settings  # noqa: E402


class Images(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "data").mkdir()
        (self.folder / "data" / "b").write_text("two")
        (self.folder / "data" / "a").write_text("one")
        (self.folder / "program").write_text("#!")
        (self.folder / "program").chmod(0o755)

    def image(self) -> Image:
        data = Layer("data", (File(self.folder / "data", "/srv/data"), Link("/srv/now", "data"), Folder("/cache", 0o700, oci_image.NONROOT)))
        return Image("localhost/trial:1", ("/program",), (oci_image.base_layer(), data, Layer("program", (File(self.folder / "program", "/program"),))))

    def build(self, cache: str = "cache", archive: str = "trial.tar") -> oci_image.Built:
        return oci_image.build(self.image(), self.folder / archive, self.folder / cache)

    def test_same_input_gives_the_same_bytes_whatever_the_times_are(self):
        first = self.build("cache1", "1.tar")
        os.utime(self.folder / "data" / "a", (1, 1))
        second = self.build("cache2", "2.tar")
        self.assertEqual(first.archive.read_bytes(), second.archive.read_bytes())
        self.assertFalse(second.layers[1].reused)

    def test_an_unchanged_image_is_not_written_again(self):
        self.build()
        inode = (self.folder / "trial.tar").stat().st_ino
        self.assertTrue(self.build().reused)
        self.assertEqual((self.folder / "trial.tar").stat().st_ino, inode)

    def test_only_the_layer_that_changed_is_packed_again(self):
        before = self.build()
        (self.folder / "program").write_text("#!/changed")
        after = self.build()
        self.assertEqual([layer.reused for layer in after.layers], [True, True, False])
        self.assertNotEqual(before.digest, after.digest)

    def test_a_changed_mode_alone_changes_the_layer(self):
        before = self.build()
        (self.folder / "program").chmod(0o644)
        self.assertNotEqual(before.digest, self.build().digest)

    def test_a_layer_holds_parents_first_with_modes_owners_and_links(self):
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(self.build().layers[1].path.read_bytes()))) as layer:
            members = {m.name: m for m in layer.getmembers()}
        self.assertEqual(list(members), ["cache", "srv", "srv/data", "srv/data/a", "srv/data/b", "srv/now"])
        self.assertEqual((members["cache"].mode, members["cache"].uid), (0o700, oci_image.NONROOT))
        self.assertEqual(members["srv/now"].linkname, "data")
        self.assertEqual({m.mtime for m in members.values()}, {0})

    def test_an_archive_tells_its_name_and_digest_and_anything_else_tells_none(self):
        built = self.build()
        self.assertEqual(oci_image.archive_digest(built.archive), ("localhost/trial:1", built.digest))
        self.assertIsNone(oci_image.archive_digest(self.folder / "program"))

    def test_shared_libraries_come_with_the_loader(self):
        paths = [f.path for f in oci_image.shared_libraries(Path(sys.executable).resolve())]
        self.assertTrue(any("/ld-linux" in p for p in paths), paths)
        self.assertTrue(any(p.endswith("/libc.so.6") for p in paths), paths)

    def test_texts_are_files_with_their_mode(self):
        blob = oci_image.pack(Layer("text", (Text("/etc/secret", "x", 0o600),)), self.folder / "cache")
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob.path.read_bytes()))) as layer:
            self.assertEqual(layer.getmember("etc/secret").mode, 0o600)
            self.assertEqual(layer.extractfile("etc/secret").read(), b"x")


class Processes(unittest.TestCase):
    def setUp(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("RUN", "LOG"):
            self.enterContext(mock.patch.object(settings, name, folder))
        self.component = process.Component("sleeper", ("sleep", "60"), healthy=lambda: True, in_namespace=False)
        self.addCleanup(process.stop, "sleeper")

    def record(self) -> dict:
        return json.loads((settings.RUN / "sleeper.json").read_text())

    def test_starting_twice_starts_once_and_stopping_ends_it(self):
        self.assertTrue(process.ensure(self.component))
        pid = self.record()["pid"]
        self.assertFalse(process.ensure(self.component))
        self.assertEqual(self.record()["pid"], pid)
        self.assertTrue(process.stop("sleeper"))
        self.assertIsNone(process._start_time(pid))

    def test_a_stranger_with_a_recorded_id_is_neither_ours_nor_stopped(self):
        for forged in ({"started": "1"}, {"boot": "another"}):
            process.ensure(self.component)
            good = self.record()
            (settings.RUN / "sleeper.json").write_text(json.dumps({**good, **forged}))
            self.assertIsNone(process.running("sleeper"))
            self.assertFalse(process.stop("sleeper"))
            self.assertIsNotNone(process._start_time(good["pid"]), "the stranger was killed")
            (settings.RUN / "sleeper.json").write_text(json.dumps(good))
            process.stop("sleeper")

    def test_a_changed_command_restarts(self):
        process.ensure(self.component)
        pid = self.record()["pid"]
        changed = process.Component("sleeper", ("sleep", "61"), healthy=lambda: True, in_namespace=False)
        self.assertTrue(process.ensure(changed))
        self.assertNotEqual(self.record()["pid"], pid)

    def test_a_file_is_private_and_written_only_when_it_changes(self):
        path = settings.RUN / "file"
        self.assertTrue(files.write(path, "a"))
        self.assertFalse(files.write(path, "a"))
        self.assertTrue(files.write(path, "b"))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)


if __name__ == "__main__":
    unittest.main()
