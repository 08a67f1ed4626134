"""UTKFace: photos whose file names say AGE_SEX_RACE_DATE, as that data set labels people."""

from pathlib import Path

SEXES = ("male", "female")
RACES = ("white", "black", "asian", "indian", "other")
AGES = ((0, "0-17 years"), (18, "18-39"), (40, "40-59"), (60, "60 and older"))


def groups_of(name: str) -> dict[str, str] | None:
    """Return the groups of a photo by kind; None where its name does not say them."""
    age, sex, race, *_ = [*name.split("_"), "", "", ""]
    if not (age.isdigit() and sex in ("0", "1") and race in map(str, range(len(RACES)))):
        return None
    years = next(title for least, title in reversed(AGES) if int(age) >= least)
    return {"sex": SEXES[int(sex)], "race": RACES[int(race)], "age": years}


def chosen(folder: Path, most: int) -> dict[Path, dict[str, str]]:
    """Return up to `most` photos of each sex and race, with their groups."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.rglob("*.jpg")):
        if groups := groups_of(path.stem):
            found.setdefault((groups["sex"], groups["race"]), []).append(path)
    if not found:
        raise SystemExit(f"no photo in {folder} is called AGE_SEX_RACE_DATE.jpg")
    even = (
        [paths[i * len(paths) // most] for i in range(most)] if len(paths) > most else paths for paths in found.values()
    )
    return {path: groups_of(path.stem) or {} for paths in even for path in paths}
