result = {"greeting": f"Hello, {name}!"}  # noqa: F821 - `name` is an input of the tool
