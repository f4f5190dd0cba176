"""Benchmarks for arm64: natively, on a board over ssh, on a phone over adb, or counted under an emulator."""
