// Nothing: a library that is only a name (meson.build).
