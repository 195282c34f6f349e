-- Staff could do everything; what each may do is said by roles from now on, and whoever was staff goes on with all.
-- An older process knows only of `staff`, and leaves the others as they are.
UPDATE users SET roles = array_append(roles, 'admin') WHERE 'staff' = ANY (roles) AND NOT 'admin' = ANY (roles);
