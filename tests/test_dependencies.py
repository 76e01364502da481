"""The floors have reasons, and the tested set is whole, in both of its forms."""

from __future__ import annotations

import json
import re
from importlib.metadata import Distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from support.markdown import Page
from support.tested_set import ROOT, constraints, installed_set, materials, needs, run_time_requirements

DOCS = ROOT / "docs"


def pins() -> dict[str, Version]:
    lines = (DOCS / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {name: Version(version) for name, version in pairs}


def version_of(package: Distribution) -> Version:
    return Version(Version(package.version).public)


def floor_of(requirement: Requirement) -> str:
    (floor,) = requirement.specifier  # a floor, and no ceiling
    assert floor.operator == ">=", requirement
    return floor.version


def test_every_floor_has_a_reason() -> None:
    section = Page(DOCS / "contributing.md").text.partition("## Dependencies")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| (.{20,}) \|$", section, re.MULTILINE)
    assert {name: floor for name, floor, _ in rows} == {
        each.name: floor_of(each) for each in run_time_requirements()
    }


def test_the_tested_set_holds_all_that_is_needed_with_it() -> None:
    pinned = pins()
    for each in run_time_requirements():
        assert pinned[canonicalize_name(each.name)] in each.specifier, each
    same = {name: one for name, one in installed_set().items() if pinned.get(name) == version_of(one)}
    for name, one in same.items():  # what is newer here may need other things
        assert {canonicalize_name(needed.name) for needed in needs(one)} <= set(pinned), name


def test_what_is_written_is_what_is_installed() -> None:
    packages = installed_set()
    assert {"torch", "numpy", "markupsafe"} <= set(packages)  # the last is needed by what is needed
    lines = constraints(packages).splitlines()[1:]
    assert lines == [f"{name}=={version_of(each)}" for name, each in packages.items()]
    assert len(json.loads(materials(packages))["components"]) == len(packages)


def test_the_bill_of_materials_names_the_same_set_and_hangs_together() -> None:
    bill = json.loads((DOCS / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    listed = {each["name"]: Version(each["version"]) for each in bill["components"]}
    assert listed == pins()
    known = {each["bom-ref"] for each in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {each["ref"] for each in bill["dependencies"]} == known
    assert {ref for each in bill["dependencies"] for ref in each["dependsOn"]} <= known
    reached, waiting = set(), [bill["metadata"]["component"]["bom-ref"]]
    needed = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += needed[ref]
    assert reached == known


def test_no_file_for_installing_names_a_registry() -> None:
    files = [ROOT / name for name in ("pyproject.toml", "Makefile", "docs/constraints.txt")]
    for file in files:
        assert not re.search(r"index-url|find-links|https?://", file.read_text()), file


def test_every_test_that_the_threat_model_names_is_there() -> None:
    text = Page(DOCS / "threat-model.md").text
    named, file = 0, ""
    for path, test in re.findall(r"`(tests/[\w/]+\.py)?::(test_\w+)`", text):
        file = path or file
        assert f"def {test}(" in (ROOT / file).read_text(), (file, test)
        named += 1
    assert named > 30
