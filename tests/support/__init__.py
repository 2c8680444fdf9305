"""What tests of several layers share: throw-away servers."""
