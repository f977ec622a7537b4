"""Written form to spoken form, in English and Chinese: numbers, dates, units, signs."""
