int reckon_variant_empty(void);
