"""The browser interface: pages and widgets over `services`, the only caller of the library."""
