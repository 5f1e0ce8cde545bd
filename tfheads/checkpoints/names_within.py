"""Names of files that come from elsewhere: none may lead out of the directory that it is to be read in."""


def is_name_within(name: object) -> bool:
    """Whether a value is the relative name of a file inside a directory, with `/` between its parts.

    Absolute paths, drives, backslashes and parts that are empty, `.` or `..` are not; links are not looked at.
    """
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name or ":" in name:
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))
